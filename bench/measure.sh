# What the parts of bench/run measure with; sourced by it.
#
#   row NAME COMMAND                     one command
#   row_after PREPARE NAME COMMAND       the same, PREPARE (a shell line) before each run, unmeasured
#   burst IN-FLIGHT TOTAL NAME COMMAND   so many at a time; {} in COMMAND differs in each
#   table TITLE                          measures the rows in turns (bench/measure.c) and prints them; a ratio
#                                        is to the first row whose name begins with "onggi"
#   figure TITLE NAME VALUE UNIT         a row that something else measured
#   tries NAME COMMAND…                  whether a peer works here at all; says so if not
#
# $runs, $work and $rows are bench/run's. COMMAND is split at spaces and needs no shell.
# shellcheck shell=bash disable=SC2154

has() { command -v "$1" >/dev/null; }

tries() {
    local name=$1
    shift
    if "$@" >"$work/try.log" 2>&1; then return 0; fi
    echo "  (without $name: $(tail -n 1 "$work/try.log"))"
    return 1
}

waiting=()
row() { waiting+=("$1"$'\t1\t1\t\t'"$2"); }
row_after() { waiting+=("$2"$'\t1\t1\t'"$1"$'\t'"$3"); }
burst() { waiting+=("$3"$'\t'"$1"$'\t'"$2"$'\t\t'"$4"); }

table() {
    local title=$1 results=$work/results
    printf '%s\n' "${waiting[@]}" | "$measure" "$runs" "$work/measure.log" >"$results"
    waiting=()
    printf '\n%s (median of %s)\n' "$title" "$runs"
    printf '  %-52s %10s %10s %10s %9s\n' '' median lowest highest 'x onggi'
    awk -F '\t' -v part="$part" -v title="$title" -v runs="$runs" -v rows="$rows" '
        { name[NR] = $1; median[NR] = $2; low[NR] = $3; high[NR] = $4; if (!ours && $1 ~ /^onggi/) ours = $2 }
        END {
            for (i = 1; i <= NR; i++) {
                u = median[i] < 1 ? 1000 : 1; s = median[i] < 1 ? "ms" : "s"; d = median[i] < 1 ? 1 : 2
                ratio = ours ? median[i] / ours : 0
                printf "  %-52s %8.*f %s %7.*f %s %7.*f %s %8.2f\n", name[i], d, median[i] * u, s, d, low[i] * u, s, d, high[i] * u, s, ratio
                printf "%s\t%s\t%s\t%s\t%s\t%s\t%.4f\ts\t%s\n", part, title, name[i], median[i], low[i], high[i], ratio, runs >> rows
            }
        }' "$results"
}

figure() {
    printf '  %-52s %10s %s   %s\n' "$2" "$3" "$4" "$1"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t0\t%s\t1\n' "$part" "$1" "$2" "$3" "$3" "$3" "$4" >>"$rows"
}
