# fish completion of srt-connect
complete -c srt-connect -l proxy -x -d 'the proxy: see below'
complete -c srt-connect -l auth-fd -x -d 'descriptor to read USER:PASSWORD from, to its end'
complete -c srt-connect -l timeout -x -d 'time limit for the connection, in seconds'
complete -c srt-connect -l help -d 'prints the usage'
complete -c srt-connect -l version -d 'prints the version'
