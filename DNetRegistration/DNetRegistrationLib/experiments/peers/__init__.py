"""This project and other registration tools on the same synthetic pairs."""
