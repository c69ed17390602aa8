package main

import (
	"net"
	"os"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/gateway"
)

// keepFromCommands refuses the connections of commands to a listener that is not for them.
func (s *server) keepFromCommands(l net.Listener, name string) net.Listener {
	refused := new(atomic.Int64)
	registerRefusals(s.registry, name, refused)
	return gateway.RefuseUser(l, s.commandUser, func() { refused.Add(1) }, s.log)
}

// commandUser returns the user that commands run as, if that tells them from everybody else: with
// the embedded runner it is trouped's own, and root's connections are those of kubectl port-forward.
func (s *server) commandUser() (uid uint32, ok bool) {
	of := s.runner.Status().UID
	return uint32(of), of > 0 && of != os.Geteuid()
}

func registerRefusals(r prometheus.Registerer, listener string, refused *atomic.Int64) {
	exporter{r}.counter("command_connections_refused_total",
		"Connections of commands to a listener that is not for them, by listener.",
		func() float64 { return float64(refused.Load()) }, "listener", listener)
}
