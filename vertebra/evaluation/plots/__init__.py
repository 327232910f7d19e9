"""Charts as inline SVG: themed by the page's CSS variables, crisp at any size, readable without colour.

A series is known by its style, 0 to 5: colour, dash and marker of the classes s0 to s5 stand in the report's style.css.
"""
