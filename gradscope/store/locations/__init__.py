"""Where a store is: in a folder of this machine, or in an object store."""
