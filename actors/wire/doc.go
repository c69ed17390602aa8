// Package wire is the vocabulary of troupe's WebSocket protocol: JSON-RPC 2.0 requests, results and
// notifications, the closed sets of error codes and end reasons, and the codec between them and
// bytes. docs/protocol.md shows every message; a test keeps that page, the OpenRPC document and
// these types consistent.
//
// The package imports only the standard library, so that the server, the client package and other
// programs can share it.
//
// Glossary: payload is raw bytes of an execution's output; Output is one process.output message,
// which carries a piece of it; frame is one encoded JSON-RPC message.
package wire
