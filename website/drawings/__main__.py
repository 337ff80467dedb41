"""Write the drawings of docs/pictures."""

from website.drawings.packages import packages
from website.drawings.step import step
from website.drawings.svg import PICTURES

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, draw in (("step.svg", step), ("packages.svg", packages)):
        (PICTURES / name).write_text(draw(), encoding="utf-8")
        print(PICTURES / name)
