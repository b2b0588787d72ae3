# bash completion of srt-relay
_srt_relay() {
    local cur prev words cword i=1 kinds
    _init_completion -n =: || return
    while ((i < cword)); do
        kinds=()
        case ${words[i]} in
        --ready-fd) kinds=(value) ;;
        --max-connections) kinds=(value) ;;
        --connect-timeout) kinds=(value) ;;
        --idle-timeout) kinds=(value) ;;
        --lifetime-fd) kinds=(value) ;;
        --status-fd) kinds=(value) ;;
        --report-fd) kinds=(value) ;;
        esac
        if ((i + ${#kinds[@]} >= cword)); then
            [[ ${kinds[cword - i - 1]} == file ]] && _filedir
            return
        fi
        ((i += 1 + ${#kinds[@]}))
    done
    mapfile -t COMPREPLY < <(compgen -W '--ready-fd --max-connections --connect-timeout --idle-timeout --outlive-parent --lifetime-fd --status-fd --report-fd --help --version' -- "$cur")
} && complete -F _srt_relay srt-relay
