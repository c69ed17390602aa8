package transcript

// queue is a slice that gives way at its front. Adding costs amortised constant time, and the memory
// follows the number of elements.
type queue[T any] struct {
	items []T
	head  int
	gone  int // Elements dropped since the beginning.
}

func (q *queue[T]) all() []T { return q.items[q.head:] }

func (q *queue[T]) len() int { return len(q.items) - q.head }

func (q *queue[T]) push(v T) {
	if len(q.items) == cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// drop removes the n oldest elements.
func (q *queue[T]) drop(n int) {
	clear(q.items[q.head : q.head+n])
	q.head += n
	q.gone += n
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
}
