"""Our figures beside the peers', measured in one run on one machine.

    figures       medians, spread, percentiles, the row that is reported
    report        the table and benchmarks/results/latest.json
    processes     children: pinned, accounted, always stopped
    certificates  the certificate authority of a run
    order         the payload of every remote-call row
    driver        closed and paced load, inside a client process
    http_client   the lean HTTP/1.1 client that every HTTP row shares
    sides         a server, its client, and rounds that alternate between two of them
    rows/         one file per family of rows
    ours/         Seamline's side of the micro rows
    peers/        the others, written as a competent user of each would

Nothing here is a test: a noisy machine makes a noisy figure, not a failure.
"""
