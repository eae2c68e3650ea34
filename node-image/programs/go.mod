module touchstone.local/programs

go 1.25.0
