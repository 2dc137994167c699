"""A local double of an Azure ML workspace: its part of Resource Manager, its run history and its online endpoints.

Jobs are real processes and endpoints real scoring processes; inputs, outputs and models travel through Blob Storage.
docs/clouds/azure.md says what it does not imitate.
"""
