# fish completion of srt-ns
function __srt_ns_program -d 'completes the program after --'
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words); or return
    set -l program $words[(math $at + 1)..-1] (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $program[1..-2]) $program[-1])
end
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l share -x -d 'keep the caller\'s namespaces: a comma-separated list of net, ipc, uts, cgroup, user (user needs CAP_SYS_ADMIN and --allow-userns)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l uid -x -d 'uid inside (default: the caller\'s). It is only shown: files are accessed with the caller\'s own uid'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l gid -x -d 'gid inside (default: the caller\'s)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l hostname -x -d 'host name inside'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l allow-userns -d 'let PROGRAM create user namespaces'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l keep-admin -d 'give PROGRAM CAP_SYS_ADMIN over its user namespace'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l relay -x -d 'relay 127.0.0.1:PORT and [::1]:PORT inside to the Unix socket SOCKET outside (repeatable)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l publish -r -d 'make the Unix socket SOCKET outside and relay it to localhost:PORT inside (repeatable)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l sidecar -x -d 'run a shell command outside, in the network namespace of the sandbox (repeatable)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l keep-session -d 'stay in the caller\'s session: terminal and job control'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l outlive-parent -d 'keep running when the parent process dies'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l as-pid-1 -d 'run PROGRAM itself as PID 1, without srt-init'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l wait-all -d 'wait for every process inside, not for PROGRAM alone'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l kill-after -x -d 'seconds from SIGTERM to SIGKILL, fractions allowed'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l lifetime-fd -x -d 'kill everything when the last writer of the pipe on descriptor N is gone (repeatable)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l placeholder -r -d 'while the sandbox runs, keep an empty file (PATH/: a directory) at PATH on the host if there is none (repeatable)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l check -d 'test what the tools need on this host'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l status-fd -x -d 'write events to descriptor N, one JSON object a line'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l keep-fd -x -d 'leave descriptor N open for PROGRAM (repeatable)'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l help -d 'prints the usage'
complete -c srt-ns -n 'not contains -- -- (commandline -opc)' -l version -d 'prints the version'
complete -c srt-ns -f -n 'contains -- -- (commandline -opc)' -a '(__srt_ns_program)'
