"""The classes of the generated circuit boards and the production lots that they come from."""

from dataclasses import dataclass

CLASSES: tuple[str, ...] = ("copper", "good", "mousebite", "open", "pinhole", "short", "spur")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Lot:
    """How one production lot is made and photographed.

    Lengths are fractions of the picture's width, colours are RGB from 0 to 255.
    """

    name: str
    trace_width: float
    gap: float
    """Smallest distance between two pieces of copper."""
    roughness: float
    """Raggedness of the etched edges: 0 is clean, 0.25 plainly ragged."""
    mask_color: Color
    """The solder mask, which covers the board."""
    finish_color: Color
    """The plating of pads and vias: gold or tin."""
    contrast: float
    """How far a trace stands out from the mask: 0 is invisible, 1 is bare plating."""
    noise: float
    """Standard deviation of the camera's noise, in grey levels out of 255."""
    blur: float
    """Radius of the lens blur, as a fraction of the picture's width."""
    shade: float
    """How much the light falls off across the picture, from 0 (even) to 1."""


_GOLD, _PALE_GOLD, _TIN = (222, 184, 92), (214, 200, 140), (172, 178, 184)
_GREEN, _FOREST, _TEAL, _OLIVE = (22, 96, 54), (26, 80, 48), (20, 96, 96), (78, 96, 38)
_BLUE, _NAVY, _RED, _PURPLE, _GREY = (26, 64, 136), (30, 52, 108), (134, 32, 38), (86, 40, 108), (62, 66, 74)

LOTS: tuple[Lot, ...] = (
    Lot("L01", 0.105, 0.110, 0.06, _GREEN, _GOLD, 0.70, 4, 0.003, 0.15),
    Lot("L02", 0.095, 0.105, 0.10, _BLUE, _TIN, 0.65, 6, 0.004, 0.25),
    Lot("L03", 0.120, 0.115, 0.16, _FOREST, _PALE_GOLD, 0.80, 5, 0.005, 0.20),
    Lot("L04", 0.100, 0.120, 0.08, _RED, _GOLD, 0.60, 7, 0.004, 0.25),
    Lot("L05", 0.110, 0.105, 0.18, _GREY, _GOLD, 0.75, 8, 0.005, 0.20),
    Lot("L06", 0.090, 0.115, 0.05, _TEAL, _TIN, 0.85, 4, 0.003, 0.30),
    Lot("L07", 0.115, 0.110, 0.12, _PURPLE, _GOLD, 0.60, 6, 0.004, 0.25),
    Lot("L08", 0.098, 0.110, 0.14, _GREEN, _TIN, 0.60, 9, 0.004, 0.30),
    Lot("L09", 0.125, 0.105, 0.10, _NAVY, _PALE_GOLD, 0.75, 7, 0.006, 0.25),
    Lot("L10", 0.092, 0.105, 0.16, _OLIVE, _GOLD, 0.65, 8, 0.004, 0.30),
)
