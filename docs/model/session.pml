/*
 * The life of one session: the two tables at the top of actors/session.go against
 * everything that may happen to a session. Checked by `make verify` for every
 * interleaving:
 *
 *   - no deadlock, and no state in which the session can no longer stop;
 *   - it stops, and tells its clients to go, only when nothing of it lives;
 *   - it tells its clients to go only when each that is attached has acknowledged the
 *     end of what it follows, or did not go on to within the resume window after a
 *     close, or by the drain's deadline;
 *   - it does not stop with an end that no client has acknowledged, unless a client
 *     closed it or did not come in time;
 *   - each client that is connected when it stops has been told to go;
 *   - an eviction is answered, by a refusal or by the end;
 *   - a drain waits only for commands and for acknowledgements, and not beyond its
 *     deadline.
 *
 * The environment: a client with two connections, one after the other or at once, that
 * may acknowledge the end, come back to an earlier offset, close the session, say
 * goodbye, break, or hang; one command, or none, that ends by itself or only when it is
 * cancelled; a server that may drain; a manager that evicts what it believes to be
 * evictable; timers that fire whenever they like, and whose messages may come too late.
 * Every connection follows the command. Left out: a failure, which is every phase's way
 * to stopped, and a session that ends with its connection.
 *
 * .ci/verify also takes out, one at a time, the lines that are marked required, and
 * demands that spin then finds a run that goes wrong.
 */

#define CONNS 2
#define AGES  3 /* more than mail holds */

/* an attached connection has not acknowledged the end of what it follows */
#define AWAITED (has && (attached[0] && !acked[0] || attached[1] && !acked[1]))
/* no client has acknowledged the end */
#define UNREAD  (has && !read && !(attached[0] && acked[0]) && !(attached[1] && acked[1]))

mtype = { Serving, Ending, Delivering, Closing, Stopped };

/* mailbox of the session actor, with a connection or the age of a timer */
mtype = { Attach, Ack, Lost, Goodbye, CloseRequest, LastEnd, ResumeExpired, IdleCheck,
          Evict, Drain, DrainDeadline, CloseTimeout };
chan mail = [2] of { mtype, byte };

/* the session */
mtype phase = Serving;
byte conns = 1;                 /* how many are attached */
bool attached[CONNS];
bool acked[CONNS];              /* the end, as far as the session knows */
byte live;
bool has;                       /* it has run a command */
bool read;                      /* a connection that is gone has acknowledged the end */
bool draining, over;            /* a drain has begun, its deadline has passed */
/* its timers; a message of an earlier one has another age */
bool resumeArmed, closeArmed, idleArmed = true;
byte resumeAge, closeAge;

/* which clients have the end */
bool got[CONNS];
/* what others were told */
bool refused[CONNS], told[CONNS], canceled, evictable;
/* a client closed it, or did not come in time */
bool excused;
/* those that read did not go on to in time */
bool stalled;

/* what the environment will do */
bool endless, drainComes;

inline attachedNow() { resumeArmed = false; resumeAge = (resumeAge + 1) % AGES; evictable = false }
inline detach()      { resumeArmed = true; resumeAge = (resumeAge + 1) % AGES; evictable = (live == 0 && !UNREAD) }
inline armClose()    { closeArmed = true; closeAge = (closeAge + 1) % AGES }
inline cancel()      { if :: phase == Serving -> attachedNow(); phase = Ending; canceled = true :: else fi }
inline leave()       { attached[arg] = false; conns--; read = read || acked[arg] }

inline close()
{
  phase = Closing;
  assert(live == 0);
  for (c : 0 .. CONNS - 1) {
    assert(!has || !attached[c] || got[c] || over || stalled);
    if :: attached[c] -> told[c] = true :: else fi
  }
  c = 0;
  armClose()
}

proctype Session()
{
  mtype m;
  byte arg, c;
  bool answered;

  do
  :: phase != Stopped -> atomic { mail?m, arg ->
     if :: m == ResumeExpired && arg != resumeAge -> m = 0 :: else fi; /* required */
     if :: m == CloseTimeout && arg != closeAge -> m = 0 :: else fi;   /* required */

     /* the first table */
     if
     :: m == Attach && phase != Serving -> refused[arg] = true
     :: m == Attach && phase == Serving ->
        if :: !attached[arg] -> attached[arg] = true; conns++ :: else fi;
        got[arg] = false;
        acked[arg] = false; /* required: it comes back to an earlier offset */
        read = false;       /* so may a client whose connection is gone */
        attachedNow();                                                     /* required */
     :: m == Ack ->
        acked[arg] = (live == 0); got[arg] = acked[arg];
        if :: phase == Delivering -> armClose() :: else fi
     :: m == Lost ->
        leave();
        if :: phase == Serving && conns == 0 -> detach() :: else fi        /* required */
     :: m == Goodbye ->
        leave();
        if :: conns == 0 -> excused = true; cancel() :: else fi            /* required */
     :: m == CloseRequest ->
        excused = true;
        cancel()
     :: m == LastEnd -> live = 0; evictable = false      /* required */
     :: m == ResumeExpired ->
        assert(phase == Serving && conns == 0);
        excused = true;
        cancel();                                                          /* required */
     :: m == IdleCheck ->
        if
        :: live == 0 && !AWAITED && (conns > 0 || !UNREAD) -> cancel()
        :: else                                /* it looks again when anything has changed */
        fi
     :: m == Evict ->
        if
        :: phase == Serving && conns == 0 && live == 0 && !UNREAD -> cancel(); answered = true
        :: phase == Closing -> answered = true                             /* by the end */
        :: else -> answered = true                                         /* required: the refusal */
        fi;
        assert(answered && (phase != Serving || conns > 0 || live > 0 || UNREAD)); answered = false
     :: m == Drain -> draining = true
     :: m == DrainDeadline ->
        excused = true; over = true;
        cancel();                                                          /* required */
        assert(phase != Serving)
     :: m == CloseTimeout && phase == Closing && arg != closeAge -> assert(false) /* a client that was told to go has its time */
     :: m == CloseTimeout && phase == Delivering -> stalled = true; close() /* required */
     :: m == CloseTimeout && phase == Closing -> phase = Stopped           /* required */
     :: else
     fi;
     if :: m != IdleCheck -> idleArmed = true :: else fi;                  /* required */
     m = 0; arg = 0;

     /* the second table */
     do
     :: phase == Serving && draining && live == 0 && !UNREAD && !AWAITED -> attachedNow(); close() /* required */
     :: phase == Ending && live == 0 -> phase = Delivering; armClose()     /* required */
     :: phase == Delivering && (over || !AWAITED) -> close()               /* required */
     :: phase == Closing && conns == 0 -> phase = Stopped                  /* required */
     :: else -> break
     od;
     assert(!(phase == Serving && draining && live == 0 && !UNREAD && !AWAITED));
     assert(!(phase == Delivering && (over || !AWAITED)));
     assert(!(phase == Closing && conns == 0)) }
  :: phase == Stopped -> break
  od;

  atomic {
    assert(live == 0);
    assert(excused || !UNREAD);
    for (c : 0 .. CONNS - 1) { assert(!attached[c] || told[c]) }
    c = 0
  }
  /* A connection that waits for an answer sees that the session has stopped. */
end:
  do
  :: mail?_, _ -> skip
  od
}

/* One connection. The first is attached from the beginning, the other attaches when it likes, or never. */
proctype Connection(byte i)
{
  bool has_all;

  if
  :: i == 0
  :: i > 0 ->
     mail!Attach, i;
     if
     :: attached[i]
     :: refused[i] || phase == Stopped -> goto out
     fi
  :: i > 0 -> goto out
  fi;
  if
  :: live == 0 -> mail!Ack, i; has_all = true
  :: i == 0 && live == 0 -> mail!Ack, i; mail!Attach, i /* it comes back to an earlier offset */
  :: i == 0 -> mail!CloseRequest, i
  :: skip
  fi;
  if
  :: drainComes || canceled || !endless && has_all -> told[i] || phase == Stopped /* it stays until it is told to go */
  :: skip
  fi;
  if
  :: mail!Lost, i
  :: mail!Goodbye, i
  :: told[i] -> phase == Stopped                 /* it hangs: its client does not read */
  fi;
out: skip
}

proctype Command()
{
  if
  :: live == 1 && (!endless || canceled) -> mail!LastEnd, 0
  :: phase == Stopped
  fi
}

proctype Timers()
{
  do
  :: atomic { resumeArmed && nfull(mail) -> resumeArmed = false; mail!ResumeExpired, resumeAge }
  :: atomic { closeArmed && nfull(mail) -> closeArmed = false; mail!CloseTimeout, closeAge }
  :: atomic { idleArmed && nfull(mail) -> idleArmed = false; mail!IdleCheck, 0 }
  :: phase == Stopped -> break
  od
}

proctype Manager()
{
  if
  :: evictable -> mail!Evict, 0
  :: skip
  fi;
  if
  :: drainComes -> mail!Drain, 0; mail!DrainDeadline, 0
  :: else
  fi
}

init
{
  atomic {
    attached[0] = true;
    if :: endless = true :: skip fi;
    if :: drainComes = true :: skip fi;
    if :: live = 1; has = true :: skip fi;
    run Session(); run Connection(0); run Connection(1); run Command(); run Timers(); run Manager()
  }
}
