"""A double of Vertex AI over REST: custom jobs that really run, models, endpoints that really predict, and their logs.

    app (who asks for what) -> jobs | models | endpoints | logs -> resources (names, operations) -> schema (field names)

Sources: https://cloud.google.com/vertex-ai/docs/reference/rest and, for the field names in schema.json, the messages of
the package google-cloud-aiplatform 2.7 (tests/twin/test_vertex_ai_official.py compares them).
"""
