"""Prints a completion script for a shell: medssl completion bash > ~/.local/share/bash-completion/completions/medssl"""

import argparse

from medssl import cli


def main(words: list[str]) -> None:
    """Prints a script that completes the commands and their options."""
    args = build_parser().parse_args(words)
    import shtab

    parser = argparse.ArgumentParser("medssl")
    commands = parser.add_subparsers()
    for group in cli.COMMANDS.values():
        for name, summary in group.items():
            options = cli.load_script(name).build_parser()
            options.formatter_class, options.epilog = argparse.HelpFormatter, None
            commands.add_parser(name, parents=[options], add_help=False, help=summary)
    print(shtab.complete(parser, shell=args.shell))


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl completion", description=__doc__)
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser
