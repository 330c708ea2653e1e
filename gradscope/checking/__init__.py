"""Is a gradient of guidance right? It is compared with finite differences of the energy that it should be of."""
