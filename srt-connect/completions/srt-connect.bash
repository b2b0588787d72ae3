# bash completion of srt-connect
_srt_connect() {
    local cur prev words cword i=1 kinds
    _init_completion -n =: || return
    while ((i < cword)); do
        kinds=()
        case ${words[i]} in
        --proxy) kinds=(value) ;;
        --auth-fd) kinds=(value) ;;
        --timeout) kinds=(value) ;;
        esac
        if ((i + ${#kinds[@]} >= cword)); then
            [[ ${kinds[cword - i - 1]} == file ]] && _filedir
            return
        fi
        ((i += 1 + ${#kinds[@]}))
    done
    mapfile -t COMPREPLY < <(compgen -W '--proxy --auth-fd --timeout --help --version' -- "$cur")
} && complete -F _srt_connect srt-connect
