package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/clients/fileserver"
	"github.com/troupe-dev/troupe/clients/mcp"
	"github.com/troupe-dev/troupe/gateway"
	"github.com/troupe-dev/troupe/gateway/api"
	"github.com/troupe-dev/troupe/gateway/console"
)

// memoryTarget is what the sum of all budgets must stay below. The chart's limit is 256 MiB.
const memoryTarget = 200 << 20

// What one thing costs beside the buffers that a constant gives, in bytes, measured on a server with
// hundreds of them as heap and stacks in use after a collection.
const (
	costProgram   = 25 << 20 // the resident memory of a trouped that serves nobody
	costHTTP      = 20 << 10 // a plain HTTP connection without its header
	costSocket    = 14 << 10
	costRequest   = 512 // unanswered, or its answer
	costNotice    = 256
	costSession   = 12 << 10
	costExecution = 26 << 10 // with the small buffers of its two streams
	costFinished  = 2300     // with an error of the greatest length
	costScrape    = 1 << 20
	costElement   = 100
	costPeer      = 8 << 10
	costFailed    = 128      // an address, in a map that has just grown
	costCall      = 32 << 10 // of an agent, without its output
	costKept      = 24 << 10 // a connection that waits for the next call of an agent
)

// budget is a row of docs/budgets.md.
type budget struct {
	name   string
	number int
	each   int // bytes
}

func (b budget) total() int { return b.number * b.each }

// budgets lists what clients and peers can make a server with default settings hold.
func budgets() []budget {
	l := actors.DefaultLimits()
	sockets, executions := maxSockets(l), l.MaxSessions*l.MaxExecutions
	windows := func(links int) (sum int) {
		for n := range links {
			sum += relay.WindowFor(n + 1)
		}
		return sum
	}
	buffers := func(streams int) (sum int) {
		for n := range streams {
			sum += actors.ReadBufferFor(n+1) - actors.ReadBufferFor(1<<30)
		}
		return sum
	}
	const largeMessage = 3<<20 + wire.MaxElements*costElement // the frame, and what it decodes to
	return []budget{
		{"program", 1, costProgram},
		{"HTTP connections", gateway.MaxHTTPConnections, costHTTP + gateway.MaxHeader},
		{"admin connections", gateway.MaxAdminConnections, costHTTP + gateway.MaxHeader},
		{"scrapes", maxScrapes, costScrape},
		{"wrong tokens", gateway.MaxFailed, costFailed},
		{"WebSockets", sockets, costSocket},
		{"small messages", sockets, 2 * gateway.SmallMessage},
		{"medium messages", gateway.MediumMessages, 2 * gateway.MediumMessage},
		{"large messages", gateway.LargeMessages, largeMessage},
		{"unanswered requests", sockets, gateway.MaxInFlight * costRequest},
		{"notifications", sockets, 2 * gateway.MaxPendingNotifications * costNotice},
		{"output in large messages", gateway.LargeOutputs, 9 * 16 << 10},
		{"output in small messages", sockets - gateway.LargeOutputs, 2*gateway.SmallOutput + 16<<10},
		{"beginnings of lines", sockets * l.MaxExecutions, gateway.RestSize},
		{"API requests", api.MaxRequests, api.RequestCost},
		{"sessions", l.MaxSessions, costSession},
		{"names and labels", l.MaxSessions, wire.MaxLabels * (2*wire.MaxLabelPart + 64)},
		{"executions", executions, costExecution},
		{"output in pipes", 1, buffers(2 * executions)},
		{"input, reserved", executions, actors.InputReserve},
		{"input, shared", 1, actors.MaxInputBytes},
		{"finished executions", l.MaxSessions * l.KeepFinished, costFinished + wire.MaxShownCommand},
		{"clients on other pods", 1, windows(actors.MaxOrigins(l.MaxSessions))},
		{"sessions on other pods", 1, windows(sockets)},
		{"messages between pods", sockets + actors.MaxOrigins(l.MaxSessions), relay.Allowance},
		{"messages between pods, shared", 1, relay.DefaultBudget},
		{"answers of other pods", 1, actors.AnswerBudget},
		{"queries of other pods", actors.MaxQueries, 2 * actors.MaxAnswer},
		{"peer connections", peers.MaxConnections, costPeer},
		{"calls of agents", gateway.MaxCalls, costCall + 2*agentWindow + max(3*mcp.MaxBytes, mcp.ScreenCost)},
		{"arguments of agents", 1, 3 * gateway.MaxCallBytes},
		{"files that agents edit", maxEdits, 3 * mcp.MaxEdited},
		{"connections of agents", maxKeptAgents, costKept},
		{"file transfers", gateway.MaxTransfers, costCall + fileserver.MaxBuffers + 3*files.MaxReply},
		{"watches of files", gateway.MaxWatches, costCall + 2*agentWindow + 3*files.MaxChange},
		{"console", 1, console.MaxHeld},
		{"screens of terminals", l.MaxSessions, actors.ScreenBytes},
		{"screen that is followed", 1, actors.ScreenLayout},
		{"log", 1, 2 * logBacklog},
	}
}

func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// TestBudgetsFitIntoThePod: with default settings the sum of everything that clients and peers can
// make the server hold is below its target, and docs/budgets.md has the same figures.
func TestBudgetsFitIntoThePod(t *testing.T) {
	text := page(t, "docs/budgets.md")
	sum := 0
	for _, b := range budgets() {
		sum += b.total()
		row := fmt.Sprintf("| %s | %d | %s | %s |", b.name, b.number, size(b.each), size(b.total()))
		if !strings.Contains(text, "\n"+row) {
			t.Errorf("docs/budgets.md has no row that begins %s", row)
		}
	}
	if row := fmt.Sprintf("| **sum** | | | **%s** |", size(sum)); !strings.Contains(text, "\n"+row) {
		t.Errorf("docs/budgets.md has no row that begins %s", row)
	}
	if sum >= memoryTarget {
		t.Errorf("the budgets sum up to %s, want less than %s", size(sum), size(memoryTarget))
	}
	documented := page(t, "docs/metrics.md") + page(t, "docs/peers.md") + "`process_resident_memory_bytes`"
	for _, metric := range regexp.MustCompile("`(?:troupe|process)_[a-z_]+`").FindAllString(text, -1) {
		if !strings.Contains(documented, metric) {
			t.Errorf("docs/budgets.md names the metric %s, which does not exist", metric)
		}
	}
	if rows := strings.Count(text, " KiB | ") + strings.Count(text, " MiB | "); rows < len(budgets()) {
		t.Errorf("docs/budgets.md has %d rows, want %d", rows, len(budgets()))
	}
}

// TestGoCollectsBeforeThePodIsFull: Go's memory limit leaves the program's own pages below the target.
func TestGoCollectsBeforeThePodIsFull(t *testing.T) {
	const pages = 21 << 20 // of the program, which the limit does not count
	limit := memoryBase + memoryPerSession*actors.DefaultLimits().MaxSessions
	if limit+pages > memoryTarget {
		t.Errorf("Go collects at %s beside %s of the program", size(limit), size(pages))
	}
}
