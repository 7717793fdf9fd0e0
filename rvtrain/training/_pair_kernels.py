"""The documents of a batch that are not negatives of a query, since they are among its own."""

from rvtrain._kernels import driver


@driver
def own_columns(threads, answers, bounds, ids, query_rows, columns, first, following, seen, out_bounds, out):
    """out[out_bounds[i] : out_bounds[i + 1]] = the columns whose id is that of a document of query query_rows[i].

    If out is empty, only out_bounds is computed. Shapes: answers (A,) and bounds (n + 1,), the documents of query q
    are answers[bounds[q] : bounds[q + 1]]; ids by document; query_rows (B,); columns (M,), the ids of columns;
    first, −1 for each id, left so; following and seen (M,) scratch; out_bounds (B + 1,).
    """
    for j in range(len(columns) - 1, -1, -1):
        following[j], seen[j] = first[columns[j]], -1
        first[columns[j]] = j
    count = 0
    for i in range(len(query_rows)):
        out_bounds[i] = count
        for a in range(bounds[query_rows[i]], bounds[query_rows[i] + 1]):
            j = first[ids[answers[a]]]
            while j >= 0:
                if seen[j] != i:
                    seen[j] = i
                    if len(out) > 0:
                        out[count] = j
                    count += 1
                j = following[j]
    out_bounds[len(query_rows)] = count
    for j in range(len(columns)):
        first[columns[j]] = -1


@driver
def transpose(threads, bounds, columns, out_bounds, out):
    """The lists by column of lists by row: out[out_bounds[j] : out_bounds[j + 1]] = the rows whose list has j.

    Shapes: bounds (B + 1,), columns (E,), out_bounds (M + 2,) of 0, of which the last element is scratch, out (E,).
    """
    for column in columns:
        out_bounds[column + 2] += 1
    for j in range(len(out_bounds) - 1):
        out_bounds[j + 1] += out_bounds[j]
    for i in range(len(bounds) - 1):
        for s in range(bounds[i], bounds[i + 1]):
            place = out_bounds[columns[s] + 1]
            out[place] = i
            out_bounds[columns[s] + 1] = place + 1
