"""Where alerts go: one file per destination. The only room of the delivery side that touches the network."""
