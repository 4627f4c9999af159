"""The frontend: the pages of the shop. It has no contract; shoppers speak HTTP."""
