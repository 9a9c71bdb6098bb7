#!/usr/bin/python3 -IS
"""
Installed under the name of every SMAPIv3 call. It hands its name, arguments and input to xosand and prints what comes
back; it knows nothing of what they mean. Valid Python 3.6, because xapi may run it as `python3 -m observer SCRIPT`.
Every millisecond here is part of a live migration's downtime: hence no json, socket, os or site module.
"""
import _signal
import _socket
import posix
import sys

# Above xosand's own deadlines (volume/*-calls.ts), for when it is stopped or hangs. In seconds.
DEADLINES = {'SR.create': 70, 'SR.destroy': 70}
DEADLINE = 40

FAMILIES = ('SR', 'Volume', 'Datapath', 'Data', 'Plugin')


def read_all(fd):
    chunks = [posix.read(fd, 65536)]
    while chunks[-1]:
        chunks.append(posix.read(fd, 65536))
    return b''.join(chunks)


def quote(raw):
    raw = raw.replace(b'\\', b'\\\\').replace(b'"', b'\\"')
    for code in range(32):
        raw = raw.replace(bytes((code,)), b'\\u%04x' % code)
    return b'"' + raw + b'"'


def print_and_exit(code, value):
    _signal.alarm(0)
    while value:
        value = value[posix.write(1, value):]
    if not sys.flags.isolated:
        sys.exit(code)  # under an observer, which has its own to finish
    posix._exit(code)


def fail(name, reason):
    sentence = 'xosand does not answer: %s. See `systemctl status xosand`; running VMs are not affected.' % reason
    params = '["",%s,""]' % as_json('The SR is not available [opterr=%s]' % sentence)
    trace = '{"error":%s,"files":[%s],"lines":[0]}' % (as_json('DAEMON_UNREACHABLE: ' + sentence), as_json(name))
    error = '{"code":"SR_BACKEND_FAILURE_47","params":%s,"backtrace":%s}\n' % (params, trace)
    print_and_exit(1, error.encode('utf-8', 'surrogateescape'))


def as_json(text):
    return quote(text.encode('utf-8', 'surrogateescape')).decode('utf-8', 'surrogateescape')


def expired(_signal_number, _frame):
    raise OSError('no answer in time')


def relay(directory, name, argv):
    try:
        with_path = posix.open(directory + '/.xosan/socket', posix.O_RDONLY)
        path = read_all(with_path).strip()
    except OSError:
        path = b'/run/xosan/control.sock'
    given = read_all(0) if argv[:1] in (['--json'], ['-j']) else b''
    encoding = sys.getfilesystemencoding()
    words = b','.join([quote(word.encode(encoding, 'surrogateescape')) for word in argv])
    plugin = b'datapath' if name.startswith('Data') else b'volume'
    request = b'{"jsonrpc":"2.0","id":1,"method":"smapi.call","params":{"plugin":"%s","name":%s,' % (
        plugin, quote(name.encode(encoding, 'surrogateescape')))
    request += b'"arguments":[%s],"stdin":%s}}\n' % (words, quote(given))
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(path)
    connection.sendall(request)
    answer = b''
    chunks = []
    while answer[-1:] != b'\n':
        answer = connection.recv(1048576)
        if not answer:
            raise OSError('it closed the connection')
        chunks.append(answer)
    # {"jsonrpc":"2.0","id":1,"result":[<exit code>,<what to print>]}: in this order, see rpc/control-api.ts.
    before, found, result = b''.join(chunks).partition(b',"result":[')
    if not found or len(before) > 40:
        raise OSError('it refused the call: ' + (before + found + result).decode('utf-8', 'replace').strip())
    print_and_exit(int(result[:1]), result[2:-3] + b'\n')


def main():
    # Under an observer the script is not the first word.
    script = next((word for word in sys.argv if word.rpartition('/')[2].partition('.')[0] in FAMILIES), sys.argv[0])
    directory, slash, name = script.rpartition('/')
    directory = directory if slash else '.'
    if name == 'Plugin.Query':
        # xapi forgets a plugin that does not answer this, also while xosand is down.
        print_and_exit(0, read_all(posix.open(directory + '/.xosan/Plugin.Query.json', posix.O_RDONLY)))
    try:
        _signal.signal(_signal.SIGALRM, expired)
        _signal.alarm(DEADLINES.get(name, DEADLINE))
        relay(directory, name, sys.argv[sys.argv.index(script) + 1:])
    except OSError as error:
        fail(name, error.strerror or error)


main()
