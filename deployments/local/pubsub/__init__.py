"""A local double of Pub/Sub: topics, subscriptions that are pulled, redelivery, dead letters. REST, one bearer token.

Source: Pub/Sub documentation, "REST API reference", "Handle message failures"; paths as google-cloud-pubsub sends them.
"""
