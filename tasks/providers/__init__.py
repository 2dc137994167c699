"""One folder a cloud: nothing but translation between the ports and an SDK."""
