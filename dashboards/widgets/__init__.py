"""Parts that pages share: controls, tables, figures and their export, thumbnails, messages, links."""
