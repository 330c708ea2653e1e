"""What pages share: controls, tables, cards of figures, thumbnails, links."""
