// Package relay carries a client's connection from the pod that has its socket to the pod that owns
// its session.
//
// It is only the protocol: it has no goroutine, no timer, no socket, and no clock but the time that
// each call brings. Frames leave through functions given at construction, and a table returns the
// actions to take. The whole protocol therefore runs in virtual time, with pods that crash and a
// network that loses, delays and repeats messages: see TestSimulation.
//
// # Parts
//
//	pod with the socket                                          pod with the session
//	client ⇄ gateway ⇄ Proxy ⇄ link ⇄ Table ~~ network ~~ Table ⇄ link ⇄ Origin ⇄ engine ⇄ transcript
//
// A [Proxy] tells the client what a session on its own pod would tell it. An [Origin] is a client
// of the engine, which does not know that the socket is elsewhere. Between them is a link, named by
// 16 random bytes. A connection that resumes gets a new link, so late frames of the old one cannot
// reach it. A [Table] knows the other pods, and which link a frame belongs to. One message type
// crosses the network, [Envelope]: the sender's pod and incarnation, and a [Heartbeat], a [Frame], or
// a [Query] about the sessions of a pod with its [Answer], which need no link.
//
// # Links
//
// The transport keeps the order. It loses the envelopes in flight when a connection resets, and may
// deliver some of them later than those sent after the reset. So frames are numbered. The receiver
// accepts the next number, and drops earlier ones as duplicates and later ones as too early. Each
// request is therefore executed once, and each answer given once. Every frame carries the last
// number that arrived; if there is no frame to carry it, it is sent by itself after 40 ms or 8
// frames.
//
// The sender keeps a frame until it is acknowledged, and resends it only on evidence. Either the
// receiver saw a gap, which it reports once; or it answered a probe, which goes out 250 ms after
// the oldest unacknowledged frame, then at 0.5, 1, 2, 2 s. A probe has 60 bytes, so a peer that
// cannot keep up does not get its backlog a second time. Until the first frame, Open, is
// acknowledged, only Open is sent and repeated, so that no origin sees a request before the Open,
// and no link gets a second origin. A body over 62 KiB travels in fragments: no envelope exceeds
// [MaxEnvelope].
//
// # Output
//
// The origin pulls the transcript with a cursor and sends pieces with their offsets; marks travel
// in their place. It may send as much as the proxy's Credit allows. The credit counts bytes, and
// 256 for each piece, over all feeds since the link began. The proxy keeps pieces until the
// client's writer has read them, and grants more with each half of the window. Output stays in the
// memory that the transport received it into, see [Held]; it and the credit of a frame are given
// back once all of the frame is read. The window is smaller the more links its pod has: see
// [WindowFor]. The proxy's feed is a cursor like the transcript's, and checks that each piece
// begins where the last one ended. A second Follow of an execution replaces the first: the origin
// closes the old cursor before it announces the new one.
//
// One link may use this much memory: at the proxy, its window of unread output; at the origin, the
// same amount of unacknowledged output; at each end, [DefaultMaxControl] of other unacknowledged
// frames, beyond which the link ends as [EndedOverflow]. TestStalledLinksCostBoundedMemory measures
// it. The code that drives an origin may queue the same amount of the proxy's frames for it. All
// links of a pod together are bounded by their windows ([WindowFor]) and by a [Budget] for the rest.
//
// # Ends
//
// When the client goes, the proxy sends End, with the cause and the offsets that were delivered.
// From then on it accepts and acknowledges no frames, and it is done when End is acknowledged. The
// ack in End therefore says which frames the client was given, and feeds that were announced later
// count as unread.
//
// When the session ends, the origin sends the remaining output, then Disconnect, and waits for End.
// It waits [DefaultLeaveTimeout] for credit, and 15 s for End. When both ends finish at once, End
// decides.
//
// A pod is dead when it is silent for [DeadAfter], although it gets heartbeats each second and,
// after 1.5 s of silence, is asked to answer twice a second. It has restarted when its incarnation
// changes to one that is not known to be over. Either way all links to it end at once. The proxy
// answers every open request with -32007 and disconnects with session_lost; the origin reports
// client_gone, and the resume window begins. A pod whose own process stood still restarts its wait
// for all peers. A pod that has never been heard has until [FirstContactTimeout], and gets no links
// before it is heard, because it may not know yet where to send its answers. Neither leaving the
// directory nor being slow makes a pod dead.
//
// If one end has forgotten the link, it answers a frame or probe of it with a Reset: at most once
// in 200 ms for one link, and for one peer 200 in a second or 400 at once. Resets and
// acknowledgements are never answered, so two pods cannot keep exchanging messages about a link
// that neither has. A link whose other end disappeared without a message is probed after 10 s of
// silence. The Reset ends it, or it ends after 30 s without an answer as [EndedSilent]. The owner
// is alive in these cases, so the client is disconnected and may resume. An Open of a link that has
// ended, or was refused, opens nothing for a minute; no envelope is in flight for that long.
//
// If the owner refuses a new session, or is lost before it answers, the proxy calls
// ProxyConfig.Refused and tells the client nothing, so that the next pod may be asked. If the lost
// owner had opened a session, no client knows its token. The session is detached, and evicted when
// its slot is needed.
//
// # Releases
//
// A frame with a body that this release does not know is acknowledged, counted and ignored. Unknown
// members and unknown kinds of envelopes are ignored too. The owner refuses a method that it does
// not know like any unknown method. The proxy's pod passes JSON that its code does not look into
// (results, most notifications) unchanged, including members that it does not know. Envelopes from
// an earlier incarnation of their sender are dropped while a later one is alive.
package relay
