#!/bin/sh
# protoc's plugin, of the version that go.mod requires, so that the generated code and its runtime agree.
exec go run google.golang.org/protobuf/cmd/protoc-gen-go
