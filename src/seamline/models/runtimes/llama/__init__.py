"""Language models of the Llama architecture, from their files to tokens, without a hub and without torch.

::

    files = open_folder(path)          # config.json, *.safetensors, tokenizer.json  (files)
    files = open_gguf_model(path)      # one .gguf                                   (files)
    engine = LlamaEngine(files, slots=8)
    async for token in engine.generate(files.tokenizer.encode("Once"), Sampling(tokens_max=20)): ...

The graph is built here (graph) and run by ONNX Runtime over a cache of fixed size (runner); sequences join and leave
between steps (engine). Architectures: Llama, Mistral without a sliding window, Qwen2.
"""
