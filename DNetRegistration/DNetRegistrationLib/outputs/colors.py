"""The colours of what is drawn, in pictures and in Slicer alike.

The moving cortex is red, as in Fig. 5 of the paper. The fixed one is blue: the white of the paper does not show
on white bone. All three keep apart, and apart from every grey, for every kind of colour vision; a test measures it.
"""

Color = tuple[float, float, float]

#: Red, green and blue, 0 to 1.
FIXED: Color = (0.0, 0.65, 1.0)
MOVING: Color = (1.0, 0.0, 0.0)
CARTILAGE: Color = (1.0, 0.85, 0.1)
