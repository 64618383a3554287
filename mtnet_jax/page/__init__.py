"""A static page that finds heads in the browser, with the exported file and onnxruntime-web."""
