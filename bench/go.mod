module imagelab/bench

go 1.26.0
