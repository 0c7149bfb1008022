"""The recommended collection in a real Milvus, made and measured again."""
