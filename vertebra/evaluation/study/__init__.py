"""The report on what depth does to plain and to residual nets (He et al. 2015, sections 4.1 and 4.2)."""
