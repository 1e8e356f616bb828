module example.org/team/classify

go 1.23

require example.org/team/pnc v0.0.0

replace example.org/team/pnc => ./pnc
