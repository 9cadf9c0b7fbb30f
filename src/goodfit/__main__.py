"""`python -m goodfit`, which is also how torchrun starts ranks."""

from goodfit.cli.main import main

if __name__ == "__main__":
    main()
