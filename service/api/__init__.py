"""The HTTP API: what clients, auditors and operators' tools speak to; handlers only translate, operations decide."""
