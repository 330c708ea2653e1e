"""Record runs, from a configuration or from Python, into stores."""
