"""What a user reads when the platform is up."""

from cloche.client import Client, home_option
from cloche.terminal import out


def announce(client: Client, isolation: str) -> None:
    """Print where the platform is and what to do next."""
    keys, home = client.credentials(), home_option(client.home)
    lines = [
        f"[bold green]Cloche is up at {client.server.address}[/]",
        f"  home       {client.home.path} (account {keys.account}, region {keys.region})",
        f"  isolation  {isolation}",
        f"  next       cloche run{home} -- python your_script.py",
        f'             or, to set up this shell: eval "$(cloche env{home})"',
    ]
    if client.server.log is None:
        lines.append(f"  stop       Ctrl-C, or cloche down{home}")
    else:
        lines += [f"  stop       cloche down{home}", f"  log        {client.server.log}"]
    out.print("\n".join(lines))
