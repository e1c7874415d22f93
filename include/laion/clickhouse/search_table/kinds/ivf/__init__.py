"""Kind `ivf`, in the making: rows in inverted lists, of which a search reads the nearest ones."""
