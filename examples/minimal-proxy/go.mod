module example.com/minimal-proxy

go 1.22
