# fish completion of srt-seccomp
function __srt_seccomp_program -d 'completes the program after --'
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words); or return
    set -l program $words[(math $at + 1)..-1] (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $program[1..-2]) $program[-1])
end
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l deny -x -d 'RULE,...: turn rules on'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l allow -x -d 'RULE,...: turn off rules that are on by default'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l list -d 'print the rules, their defaults and their system calls'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l load -r -d 'FILE: add a raw BPF filter after all other steps'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l load-fd -x -d 'the same, read from descriptor N to its end (repeatable)'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l landlock -d 'use Landlock to permit only what PROGRAM\'s mounts permit, so that a read-only mount also protects FIFOs'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l read -r -d 'let PROGRAM read and execute what is below PATH, and open nothing that no --read or --write names (repeatable)'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l write -r -d 'the same, and write below PATH (repeatable)'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l unix -r -d 'in place of the rule unix: connect only to Unix sockets created inside, and to PATH or below it (repeatable)'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l connect-tcp -x -d 'in place of the rule net: permit no network but TCP connections to PORT (repeatable)'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l export -d 'write the rules\' filter to stdout as raw BPF, for --load or bwrap --seccomp, and run nothing'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l status-fd -x -d 'write events to descriptor N, one JSON object a line'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l keep-fd -x -d 'leave descriptor N open for PROGRAM (repeatable)'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l help -d 'prints the usage'
complete -c srt-seccomp -n 'not contains -- -- (commandline -opc)' -l version -d 'prints the version'
complete -c srt-seccomp -f -n 'contains -- -- (commandline -opc)' -a '(__srt_seccomp_program)'
