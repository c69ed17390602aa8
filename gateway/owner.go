//go:build linux

package gateway

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands share the network of the pod with the server, so that they reach its admin listener on
// loopback. A token would keep them away, too, but then the kubelet's probes and every Prometheus
// would have to carry it. The kernel knows whose a socket of this machine is, and tells everybody.

// RefuseUser returns a listener that closes each connection whose other end is a socket of the user
// on this machine, and calls refused. user says which one; false: none, at present. Connections of
// other machines, of other users, and of kubectl port-forward, which is root, are accepted. So are
// all where the kernel does not tell (CONFIG_INET_DIAG; gVisor), which is logged once.
func RefuseUser(l net.Listener, user func() (uid uint32, ok bool), refused func(), logger *slog.Logger) net.Listener {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &choosyListener{Listener: l, user: user, refused: refused, log: logger}
}

type choosyListener struct {
	net.Listener
	user    func() (uint32, bool)
	refused func()
	log     *slog.Logger
	untold  sync.Once
}

// Accept implements net.Listener.
func (l *choosyListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.refuses(c) {
			return c, err
		}
		_ = c.Close() // nothing was written
		l.refused()
	}
}

func (l *choosyListener) refuses(c net.Conn) bool {
	uid, ok := l.user()
	if !ok {
		return false
	}
	remote, ok1 := addrPort(c.RemoteAddr())
	local, ok2 := addrPort(c.LocalAddr())
	if !ok1 || !ok2 {
		return false
	}
	owner, err := socketOwner(remote, local)
	if err == nil {
		return owner == uid
	}
	if !isLocal(remote.Addr()) {
		return false // the socket is on another machine
	}
	// The kernel does not find a socket that is bound to a device, or that is closed by now. It finds
	// this end of the connection, if it finds any.
	if _, err := socketOwner(local, remote); err == nil {
		return true
	}
	l.untold.Do(func() {
		l.log.Warn("the kernel does not tell whose a socket is, so commands can connect to this address",
			"addr", l.Addr().String(), "err", err)
	})
	return false
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), true
}

// isLocal reports whether an address is one of this machine. It says yes if it cannot know.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	have, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(have, func(h net.Addr) bool {
		n, ok := h.(*net.IPNet)
		return ok && n.IP.Equal(a.AsSlice())
	})
}

// diagRequest asks for one socket: struct inet_diag_req_v2 of linux/inet_diag.h after a header.
// Ports and addresses are in network order.
type diagRequest struct {
	header                            unix.NlMsghdr
	family, protocol, extensions, pad uint8
	states                            uint32
	localPort, remotePort             [2]byte
	local, remote                     [16]byte
	device                            uint32
	cookie                            [2]uint32
}

// diagAnswer is struct inet_diag_msg after a header.
type diagAnswer struct {
	header                                        unix.NlMsghdr
	family, state, timer, retransmits             uint8
	localPort, remotePort                         [2]byte
	local, remote                                 [16]byte
	device                                        uint32
	cookie                                        [2]uint32
	expires, receiveQueue, writeQueue, uid, inode uint32
}

var errNoSocket = errors.New("the kernel sent no socket")

// socketOwner returns the user of the TCP socket of this machine with these addresses, as
// sock_diag(7) tells it.
func socketOwner(local, remote netip.AddrPort) (uint32, error) {
	req := diagRequest{
		family: unix.AF_INET, protocol: unix.IPPROTO_TCP, states: ^uint32(0), cookie: [2]uint32{^uint32(0), ^uint32(0)},
	}
	if local.Addr().Is6() {
		req.family = unix.AF_INET6
	}
	copy(req.local[:], local.Addr().AsSlice())
	copy(req.remote[:], remote.Addr().AsSlice())
	binary.BigEndian.PutUint16(req.localPort[:], local.Port())
	binary.BigEndian.PutUint16(req.remotePort[:], remote.Port())
	req.header = unix.NlMsghdr{
		Len: uint32(unsafe.Sizeof(req)), Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST,
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	message := (*[unsafe.Sizeof(req)]byte)(unsafe.Pointer(&req))[:]
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	// The kernel has answered when sendto returns. Room for its attributes keeps the answer whole.
	var answer struct {
		diagAnswer
		attributes [1024]byte
	}
	buf := (*[unsafe.Sizeof(answer)]byte)(unsafe.Pointer(&answer))[:]
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	switch {
	case err != nil:
		return 0, err
	case answer.header.Type != unix.SOCK_DIAG_BY_FAMILY || n < int(unsafe.Sizeof(answer.diagAnswer)):
		return 0, errNoSocket
	}
	return answer.uid, nil
}
