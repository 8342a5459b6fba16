"""The page that ends a run: one self-contained HTML file, made of sections; `document` is its frame."""
