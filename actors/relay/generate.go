package relay

// protoc is Debian's protobuf-compiler. TestGeneratedCodeIsCurrent compares its output with the
// checked-in file.
//
//go:generate protoc --plugin=protoc-gen-go=protoc-gen-go.sh --go_out=. --go_opt=paths=source_relative relay.proto
