"""Where vectors are searched: faiss in this process, milvus-lite, or a Milvus server, behind one protocol."""
