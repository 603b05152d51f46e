module example.com/drain

go 1.26.0

require imagelab v0.0.0

require golang.org/x/sys v0.50.0 // indirect

replace imagelab => ../..
