// Package relay carries a client's connection from the pod that has its socket to the pod that owns its session.
//
// It is the protocol and nothing else: no goroutine, no timer, no socket, no clock but the time that each call
// brings. What leaves goes through functions given at construction. So all of it runs in virtual time, with
// pods that crash and a network that loses, delays and repeats: see TestSimulation.
//
// # Parts
//
//	pod with the socket                                          pod with the session
//	client ⇄ gateway ⇄ Proxy ⇄ link ⇄ Table ~~ network ~~ Table ⇄ link ⇄ Origin ⇄ engine ⇄ transcript
//
// A [Proxy] says to the client what a session here would say. A [Origin] is a client of the engine, which does not
// know that the socket is elsewhere. Between them is a link, named by 16 random bytes. A connection that resumes is a
// new link, so nothing late of the old one can reach it. A [Table] knows the other pods, and which link a frame
// belongs to. One message type crosses the network, [Envelope]: pod, incarnation, and a [Heartbeat] or a [Frame].
//
// # Links
//
// The transport keeps the order but loses what is under way when a connection resets, and may deliver some of it
// later than what was sent after the reset. So frames are numbered. The receiver takes the next number, drops earlier
// ones as duplicates and later ones as too early. Hence each request is executed once, and each answer given once. Every
// frame carries the last number that arrived; alone it travels after 40 ms or 8 frames.
//
// The sender keeps a frame until it is acknowledged, and sends it again only on evidence. Either the receiver saw a gap,
// which it says once; or it answered a probe, which goes out 250 ms after the oldest unacknowledged frame, then at
// 0.5, 1, 2, 2 s. A probe has 60 bytes: a peer that cannot keep up is not sent its backlog once more.
// Until the first frame, Open, is acknowledged, it alone is sent and repeated, so that no origin sees a request
// before the Open and no second origin is made for one link. What is over 48 KiB travels in fragments: no envelope exceeds
// [MaxEnvelope].
//
// # Output
//
// The origin pulls the transcript with a cursor and sends pieces with their offsets; marks travel in their place. It may send
// as much as the proxy's Credit allows. The credit counts bytes, and 256 for each piece, over all feeds since the link began. The proxy keeps
// what came until the client's writer has read it, and grants more each half of the window, which is less the more links its pod
// has: see [WindowFor]. Its feed is a cursor
// like the transcript's. It checks that each piece begins where the last one ended. A second Follow of an execution
// replaces the first: the origin closes the old cursor before it announces the new one.
//
// What one link may cost in memory: at the proxy its window of unread output; at the origin as much output that is not
// acknowledged; at each end [DefaultMaxControl] of other frames that are not acknowledged, above which the link ends as
// [EndedOverflow]. TestStalledLinksCostBoundedMemory measures it. Who drives an origin may let as much of the proxy's frames wait for it.
//
// # Ends
//
// The client goes: the proxy sends End, with the cause and what was delivered, takes and acknowledges nothing from then
// on, and is done when End is acknowledged. So the ack in End says what the client was given, and feeds that it had not heard of
// count as unread.
//
// The session ends: the origin sends what output there is, then Disconnect, and waits for End; it waits
// [DefaultLeaveTimeout] for credit, and 15 s for End. When both end at once, End decides.
//
// A pod dies: nothing is heard for [DeadAfter], although heartbeats are sent each second and, after 1.5 s of silence,
// ask for an answer twice a second. Or its incarnation changes, to one that is not known to be over. All links to it end at once. The proxy answers every open request with
// -32007 and disconnects with session_lost; the origin says client_gone, and the resume window begins. A pod that itself
// stood still begins to wait anew. A pod that was never heard is given [FirstContactTimeout], in which it gets no links: it may not know
// yet where to send its answers. A pod that leaves the directory is not dead by that. A peer that is slow but answers is
// not dead either.
//
// One end forgets the link: a frame or probe for an unknown link is answered by a Reset, once in 200 ms for a link and 200 in a second,
// or 400 at once, for a peer. Resets and acknowledgements are never answered, so two pods cannot go on about a link that neither has. A link whose
// other end is gone without a word is probed after 10 s of silence and ends by the Reset, or after 30 s without an answer
// as [EndedSilent]. The owner lives in these cases, so the client is disconnected and may resume. An Open of a link that has
// ended, or was refused, opens nothing for a minute, by when nothing late is under way.
//
// A new session that the owner refuses, or whose owner is lost before it answered, is reported to ProxyConfig.Refused, and the client
// has heard nothing: the next pod may be asked. If the lost owner had opened one, nobody knows its token. It is detached, and
// gives way to newcomers.
//
// # Releases
//
// A frame with a body that this release does not know is acknowledged, counted and ignored, as are unknown members and kinds of
// envelopes. A method that the owner does not know is refused as any unknown method. What the code of the proxy's pod does not look
// into (results, most notifications) passes as JSON, with members that it does not know. Envelopes from an earlier incarnation of their
// sender are dropped, while there is a later one.
package relay
