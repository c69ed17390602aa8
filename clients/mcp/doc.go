// Package mcp is troupe's door for agents: tools of the Model Context Protocol
// (https://modelcontextprotocol.io) that run commands in sessions of a troupe server. `troupe mcp`
// serves them over stdio, and trouped serves them over HTTP at /mcp.
//
// # Handles
//
// A session is named by its id and a command by its execution id, and every call names both: a Door
// keeps nothing that a later call needs, so each call may go to another pod, or to another run of
// the program. What a Door does keep, connections of sessions that were used a moment ago, is a cache.
//
// # Waiting
//
// No call waits longer than its yield_ms for a command. One that still runs by then goes on, and the
// answer says how to continue. What ends a call early, such as a lost connection or a client that
// gives up, ends the wait alone: only cancel, signal and close_session end a command.
//
// # What a model reads
//
// A result holds at most max_bytes of output, 16 KiB unless a call asks for more: its beginning and
// its end, and between them how many bytes were omitted and at which offset read_output finds them.
package mcp
