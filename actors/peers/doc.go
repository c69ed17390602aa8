// Package peers carries the envelopes of package relay between the pods of one service: who the
// pods are ([Directory]), how they prove it ([TLS]), and the streams between them ([Transport]).
//
// It knows neither sessions nor links. Package actors gives it envelopes to send and takes those
// that arrive.
package peers
