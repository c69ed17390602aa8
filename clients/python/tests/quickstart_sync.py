import os

import troupe.sync

with troupe.sync.open(os.environ.get("TROUPE_SERVER", "ws://localhost:8003/ws")) as session:
    print(session.run(["uname", "-s"]).stdout, end="")
    sort = session.exec("sort", stdin=True)
    sort.write("pear\napple\n")
    sort.close_input()
    for piece in sort.output:
        print(piece.data.decode(), end="")
