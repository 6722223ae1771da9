import click
from itsdangerous import Signer


@click.command()
@click.argument("words", nargs=-1)
def main(words):
    signed = Signer("key of an example").sign(str(len(words))).decode()
    click.echo(f"hello from python, {signed.split('.')[0]} words")


main()
